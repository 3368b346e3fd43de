"""Pages to look at: a profile or a benchmark as one HTML file that loads nothing.

Pictures are drawn by Matplotlib as SVG inside the page, in the page's own colours, so that they follow a dark screen;
tables are plain HTML. A small script sorts tables and shows what is under the pointer; without it all figures are
there.
"""
