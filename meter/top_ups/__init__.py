"""Auto top-up: what the script asked for (lua/state/top_up.lua) is paid for by a provider and becomes a grant, once."""
