"""The engine: all code that touches `transformers.Trainer`.

The table lists the private names of `transformers.Trainer` that the engine overrides or uses. The numbers are those of
the facts in PLATFORM_FACTS (a design document) that make each one necessary. A test fails if a class overrides or uses
another private name.

| name | fact | why |
|---|---|---|
| `_get_num_items_in_batch` | 6 | the stock count looks for top-level `labels` |
| `_train_batch_size` | 7 | the loader follows `auto_find_batch_size` |
| `_set_signature_columns_if_needed`, `_signature_columns` | 8 | evaluation batches keep the arguments of `forward` |
| `_save` | 9, 14 | no extra modules and no token in a saved folder; the label file lies next to an adapter |
| `_save_optimizer_and_scheduler`, `_load_optimizer_and_scheduler` | 4 | the state of the method |
| `_save_checkpoint`, `_get_output_dir` | 4 | marker of a complete checkpoint, written before old ones are removed |
| `_load_from_checkpoint`, `_load_best_model` | 4, 9 | a finished run is loaded; the file has no extra modules |
| `_push_from_checkpoint`, `_finish_current_push` | 4 | the stock push copies a fixed list of files, too early |
"""
