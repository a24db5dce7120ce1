"""The report of a run: facts collected once, views on them, one page; the model card; two runs side by side."""
