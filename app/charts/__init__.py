"""Charts: checked numbers in, SVG and PNG out.

They are drawn in a process of its own: the plotting library takes a second to load, 80 MB to keep and the interpreter's
lock while it draws, which is nothing that a server's other calls should wait for, and what hangs there can be ended.
"""

from app.charts.artist import Pictures, aclose, draw

__all__ = ["Pictures", "aclose", "draw"]
