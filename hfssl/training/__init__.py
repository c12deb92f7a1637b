"""The engine: all that touches `transformers.Trainer`.

What is used of its private side, with the number of the fact in PLATFORM_FACTS (of the design documents) that asks for
it. A test fails if a class overrides or uses more.

| name | fact | why |
|---|---|---|
| `_get_num_items_in_batch` | 6 | the stock count looks for top-level `labels` |
| `_train_batch_size` | 7 | the loader follows `auto_find_batch_size` |
| `_set_signature_columns_if_needed`, `_signature_columns` | 8 | evaluation batches keep what `forward` takes |
| `_save` | 9, 14 | no extra modules and no token in a saved folder; the label file lies next to an adapter |
| `_save_optimizer_and_scheduler`, `_load_optimizer_and_scheduler` | 4 | the state of the method |
| `_save_checkpoint`, `_get_output_dir` | 4 | the mark of a complete checkpoint, written before old ones are removed |
| `_load_from_checkpoint`, `_load_best_model` | 4, 9 | a finished run is loaded; extra modules are not in the file |
| `_push_from_checkpoint`, `_finish_current_push` | 4 | the stock push copies a fixed list of files, too early |
"""
