"""The HTTP surface: exchanges (pure), and the Starlette routes that carry them."""
