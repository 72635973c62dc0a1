"""The commands, one module per subject: they parse, set up logging and call plain functions.

Each module has `register(app)`. Work is imported inside the commands, so that `--help` is quick and a command never
needs the packages of another stage.
"""
