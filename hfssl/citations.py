"""Holds BibTeX entries for model cards, except those of the methods, which the objectives hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["BERT", "GUO_2017", "LORA", "SIMCSE", "TASK_ADAPTIVE", "papers_and_citations"]

BERT = """@inproceedings{devlin2019bert,
  title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Proceedings of NAACL-HLT},
  year = {2019}
}"""

GUO_2017 = """@inproceedings{guo2017calibration,
  title = {On Calibration of Modern Neural Networks},
  author = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {International Conference on Machine Learning},
  year = {2017}
}"""

LORA = """@inproceedings{hu2022lora,
  title = {{LoRA}: Low-Rank Adaptation of Large Language Models},
  author = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean
            and Wang, Lu and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}"""

SIMCSE = """@inproceedings{gao2021simcse,
  title = {{SimCSE}: Simple Contrastive Learning of Sentence Embeddings},
  author = {Gao, Tianyu and Yao, Xingcheng and Chen, Danqi},
  booktitle = {Proceedings of EMNLP},
  year = {2021}
}"""

TASK_ADAPTIVE = """@inproceedings{gururangan2020dont,
  title = {Don't Stop Pretraining: Adapt Language Models to Domains and Tasks},
  author = {Gururangan, Suchin and Marasovi{\\'c}, Ana and Swayamdipta, Swabha and Lo, Kyle and Beltagy, Iz and Downey,
            Doug and Smith, Noah A.},
  booktitle = {Proceedings of ACL},
  year = {2020}
}"""

ZHOU_2004 = """@inproceedings{zhou2004learning,
  title = {Learning with Local and Global Consistency},
  author = {Zhou, Dengyong and Bousquet, Olivier and Lal, Thomas Navin and Weston, Jason and Sch{\\"o}lkopf, Bernhard},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2004}
}"""

# Options that are off by default. A stage used an option if its settings contain it with a value.
OPTIONS = {
    "distribution_alignment": """@article{saerens2002adjusting,
  title = {Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple Procedure},
  author = {Saerens, Marco and Latinne, Patrice and Decaestecker, Christine},
  journal = {Neural Computation},
  year = {2002}
}""",
    "class_prior": """@inproceedings{berthelot2020remixmatch,
  title = {{ReMixMatch}: Semi-Supervised Learning with Distribution Matching and Augmentation Anchoring},
  author = {Berthelot, David and Carlini, Nicholas and Cubuk, Ekin D. and Kurakin, Alex and Sohn, Kihyuk and Zhang, Han
            and Raffel, Colin},
  booktitle = {International Conference on Learning Representations},
  year = {2020}
}""",
    "contrastive_loss": """@article{tunstall2022efficient,
  title = {Efficient Few-Shot Learning Without Prompts},
  author = {Tunstall, Lewis and Reimers, Nils and Jo, Unso Eun Seo and Bates, Luke and Korat, Daniel and Wasserblat,
            Moshe and Pereg, Oren},
  journal = {arXiv preprint arXiv:2209.11055},
  year = {2022}
}""",
    "label_spreading": ZHOU_2004,
    "knn_smoothing": ZHOU_2004,
    "weight_average_decay": """@inproceedings{tarvainen2017mean,
  title = {Mean Teachers are Better Role Models: Weight-averaged Consistency Targets Improve Semi-supervised Deep
           Learning Results},
  author = {Tarvainen, Antti and Valpola, Harri},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2017}
}""",
    "wise_ft_alpha": """@inproceedings{wortsman2022robust,
  title = {Robust Fine-tuning of Zero-shot Models},
  author = {Wortsman, Mitchell and Ilharco, Gabriel and Kim, Jong Wook and Li, Mike and Kornblith, Simon and Roelofs,
            Rebecca and Gontijo-Lopes, Raphael and Hajishirzi, Hannaneh and Farhadi, Ali and Namkoong, Hongseok and
            Schmidt, Ludwig},
  booktitle = {Proceedings of CVPR},
  year = {2022}
}""",
    "model_soup": """@inproceedings{wortsman2022model,
  title = {Model Soups: Averaging Weights of Multiple Fine-tuned Models Improves Accuracy without Increasing Inference
           Time},
  author = {Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Yitzhak and Roelofs, Rebecca and Gontijo-Lopes,
            Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and Carmon, Yair and Kornblith, Simon
            and Schmidt, Ludwig},
  booktitle = {International Conference on Machine Learning},
  year = {2022}
}""",
    "retrain_head": """@inproceedings{kirichenko2023last,
  title = {Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations},
  author = {Kirichenko, Polina and Izmailov, Pavel and Wilson, Andrew Gordon},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}""",
    "r_drop_alpha": """@inproceedings{wu2021rdrop,
  title = {{R-Drop}: Regularized Dropout for Neural Networks},
  author = {Wu, Lijun and Li, Juntao and Wang, Yue and Meng, Qi and Qin, Tao and Chen, Wei and Zhang, Min and Liu,
            Tie-Yan},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021}
}""",
    "mixup_alpha": """@inproceedings{zhang2018mixup,
  title = {mixup: Beyond Empirical Risk Minimization},
  author = {Zhang, Hongyi and Cisse, Moustapha and Dauphin, Yann N. and Lopez-Paz, David},
  booktitle = {International Conference on Learning Representations},
  year = {2018}
}""",
    "l2_sp_alpha": """@inproceedings{li2018explicit,
  title = {Explicit Inductive Bias for Transfer Learning with Convolutional Networks},
  author = {Li, Xuhong and Grandvalet, Yves and Davoine, Franck},
  booktitle = {International Conference on Machine Learning},
  year = {2018}
}""",
    "layerwise_lr_decay": """@inproceedings{howard2018universal,
  title = {Universal Language Model Fine-tuning for Text Classification},
  author = {Howard, Jeremy and Ruder, Sebastian},
  booktitle = {Proceedings of ACL},
  year = {2018}
}""",
}


def papers_and_citations(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Collects the sources of a stage from its settings (nested by step): names of papers, and BibTeX entries.

    Args:
        config (`Mapping[str, Any]`): Settings of the stage; `paper` and `citation` at any depth come from an
            objective.
    """
    flat = list(_items(config))
    papers = [value for name, value in flat if name == "paper" and value]
    citations = [value.strip() for name, value in flat if name == "citation" and value]
    citations += [
        OPTIONS[name] for name, value in flat if name in OPTIONS and value not in (None, "none", "predicted", 0)
    ]
    return list(dict.fromkeys(papers)), list(dict.fromkeys(citations))


def _items(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _items(value)
        else:
            yield name, value
