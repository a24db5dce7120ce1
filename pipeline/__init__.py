"""What runs, in which order, with which settings: settings, pipeline definition, runners, command line, report."""
