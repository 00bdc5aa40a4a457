"""How things are shown: the look of figures, text and HTML, widgets."""
