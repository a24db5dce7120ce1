"""The sections of the report: each arranges some of the facts for its template."""
