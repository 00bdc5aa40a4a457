"""What a run is told with: the site, and the reports to send."""
