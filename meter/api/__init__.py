"""The calls of `/credits`, a file for each noun, and the Starlette routes that carry them."""
