"""Puts every product of a catalogue into its product type code, from title, description and photo."""

__version__ = "0.1.0"
