"""Item tables: what is known of items beside their clicks, read, typed and encoded for models."""
