"""Fixed-bin histograms of what the model sees and answers, and how they travel. No input ever leaves the device."""
