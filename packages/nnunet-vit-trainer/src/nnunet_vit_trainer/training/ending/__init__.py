"""How a training ends: asked to, with its process, and with it its data workers."""
