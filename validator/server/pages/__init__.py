"""HTML of the operator listener: plain text, inline style, nothing loaded from elsewhere, everything escaped."""
