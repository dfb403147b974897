"""Pages of HTML: one file each, which needs no other and no network."""
