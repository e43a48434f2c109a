"""The server: libraries, runs, routes, and what every request passes."""
