"""Stage `judge`: calls by strangers, whose prompts, wordings and voices are in no training."""
