"""The bundled teacher and student, and the worlds that they, the demo's pool and its test splits are drawn from."""
