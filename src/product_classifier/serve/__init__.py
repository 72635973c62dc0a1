"""The prediction API: one product or many, answered with the champion."""
