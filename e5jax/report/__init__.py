"""`results.json`, tables, self-contained HTML pages and SVG charts."""
