"""ServingValidator: what ships is loaded and asked as its users will."""
