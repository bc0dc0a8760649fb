"""The embedded data set: textured shapes, drawn rather than downloaded."""
