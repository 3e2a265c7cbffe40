"""The hot lane: hot calls served straight from the callbacks of the HTTP parser."""
