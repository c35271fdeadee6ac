"""What people look at: queries of the published file, alerts, charts and the report."""
