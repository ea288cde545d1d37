"""One drawing a module: `draw(..., width)` -> SVG. A plot is drawn for a wide and for a narrow place."""
