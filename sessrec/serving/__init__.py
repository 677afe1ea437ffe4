"""Recommendations for live sessions over HTTP, from the very model that was tested."""
