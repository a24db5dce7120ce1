"""ExampleValidator that stops the run."""
