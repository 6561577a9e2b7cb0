"""How a topic is measured and shown: claims, experiments, the runner, the store, figures and the report."""
