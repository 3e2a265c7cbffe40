"""arq's door in a checkout; nothing of it is installed, so that it never hides a folder of this name elsewhere."""
