"""The Temporal worker: settings, health checks, activities, and running an agent."""
