"""Custom property of an artifact that stands for nothing; this module imports nothing, so that readers start fast."""

# Platforms without resolvers give every component an artifact for every input; this one says that there is none.
ABSENT = "absent"
