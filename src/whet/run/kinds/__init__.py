"""How the answers of each kind of model are read: one module for each, found by the name of the kind."""
