"""Networks with a recurrent layer, trained on tasks that need no download: what ``recsolve train`` runs."""
