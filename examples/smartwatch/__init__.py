"""`make demo`: from a trained model to a healthy fleet, on recordings of a real smartwatch."""
