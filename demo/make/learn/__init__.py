"""The checkpoint: pretrained on practice rooms; its figures on the test split."""
