"""What every part of Tenure shares: the `tenure.dev/v1alpha1` resource types, identities, and the catalogue of reasons."""
