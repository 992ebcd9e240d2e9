"""What operators read and decide: incidents, their windows, and the status a person gives them."""
