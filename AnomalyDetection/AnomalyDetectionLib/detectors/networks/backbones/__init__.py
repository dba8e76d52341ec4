"""Networks of natural images' classification, for their feature maps and pooled vectors."""
