"""How fast networks train here and elsewhere: the same network, start, batches and losses, measured side by side."""
