"""The Temporal worker: settings, health, activities and the loop that keeps them running."""
