"""Low rank: a dense layer becomes two thinner ones."""
