"""The durable ledger: one Protocol (`base`), its rows (`rows`) and the databases that keep them."""
