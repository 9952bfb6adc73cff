"""What may be in the scikit-learn steps of a saved model; nothing else is made from a file.

They keep arrays and plain values, and most use them through NumPy, which checks its bounds.
Forests, support vector machines and neighbours follow their arrays unchecked: `compiled_steps`
checks them, and trees are stored as arrays. Fitted boosting and isolation forests are not among
them.
"""

from __future__ import annotations

_CLASSES = {
    "sklearn.calibration": "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration "
    "_TemperatureScaling",
    "sklearn.compose._column_transformer": "ColumnTransformer",
    "sklearn.covariance._elliptic_envelope": "EllipticEnvelope",
    "sklearn.covariance._empirical_covariance": "EmpiricalCovariance",
    "sklearn.covariance._robust_covariance": "MinCovDet",
    "sklearn.covariance._shrunk_covariance": "LedoitWolf OAS ShrunkCovariance",
    "sklearn.decomposition._factor_analysis": "FactorAnalysis",
    "sklearn.decomposition._fastica": "FastICA",
    "sklearn.decomposition._incremental_pca": "IncrementalPCA",
    "sklearn.decomposition._nmf": "NMF",
    "sklearn.decomposition._pca": "PCA",
    "sklearn.decomposition._truncated_svd": "TruncatedSVD",
    "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "sklearn.dummy": "DummyClassifier",
    "sklearn.feature_selection._from_model": "SelectFromModel",
    "sklearn.feature_selection._univariate_selection": "SelectFdr SelectFpr SelectFwe SelectKBest "
    "SelectPercentile GenericUnivariateSelect",
    "sklearn.feature_selection._variance_threshold": "VarianceThreshold",
    "sklearn.frozen._frozen": "FrozenEstimator",
    "sklearn.impute._base": "SimpleImputer MissingIndicator",
    "sklearn.isotonic": "IsotonicRegression",
    "sklearn.linear_model._base": "LinearRegression",
    "sklearn.linear_model._bayes": "BayesianRidge",
    "sklearn.linear_model._coordinate_descent": "ElasticNet ElasticNetCV Lasso LassoCV",
    "sklearn.linear_model._logistic": "LogisticRegression LogisticRegressionCV",
    "sklearn.linear_model._ridge": "Ridge RidgeCV RidgeClassifier RidgeClassifierCV",
    "sklearn.metrics._scorer": "_CurveScorer _Scorer",
    "sklearn.model_selection._classification_threshold": "FixedThresholdClassifier "
    "TunedThresholdClassifierCV",
    "sklearn.model_selection._split": "GroupKFold GroupShuffleSplit KFold PredefinedSplit "
    "RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
    "StratifiedShuffleSplit",
    "sklearn.multiclass": "OneVsOneClassifier OneVsRestClassifier",
    "sklearn.naive_bayes": "BernoulliNB ComplementNB GaussianNB MultinomialNB",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing._data": "KernelCenterer MaxAbsScaler MinMaxScaler Normalizer "
    "PowerTransformer QuantileTransformer RobustScaler StandardScaler Binarizer",
    "sklearn.preprocessing._discretization": "KBinsDiscretizer",
    "sklearn.preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
    "sklearn.preprocessing._function_transformer": "FunctionTransformer",
    "sklearn.preprocessing._label": "LabelBinarizer LabelEncoder",
    "sklearn.preprocessing._polynomial": "PolynomialFeatures",
    "sklearn.random_projection": "GaussianRandomProjection",
    "sklearn.svm._classes": "LinearSVC NuSVC SVC",
    "sklearn.utils._bunch": "Bunch",
    "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    "sklearn.ensemble._bagging": "BaggingClassifier",
    "sklearn.ensemble._forest": "ExtraTreesClassifier RandomForestClassifier",
    "sklearn.ensemble._weight_boosting": "AdaBoostClassifier",
    "sklearn.neighbors._classification": "KNeighborsClassifier",
    "sklearn.neighbors._nearest_centroid": "NearestCentroid",
    "sklearn.neural_network._multilayer_perceptron": "MLPClassifier",
    "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    "sklearn.tree._classes": "DecisionTreeClassifier ExtraTreeClassifier",
    "sk_momkd.persistence.stored_trees": "StoredTree",
    # Unfitted, as a teacher or a detector; a fitted one holds trees that are not checked.
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": "HistGradientBoostingClassifier",
    "sklearn.ensemble._iforest": "IsolationForest",
    "sklearn.ensemble._stacking": "StackingClassifier",
    "sklearn.ensemble._voting": "VotingClassifier",
    "sk_momkd.persistence.sklearn_steps": "Placeholder",
}
_UFUNCS = "arcsinh cbrt exp expm1 log log10 log1p log2 sqrt square"
_FUNCTIONS = {
    "numpy": _UFUNCS,
    "numpy._core._multiarray_umath": _UFUNCS,
    "numpy.core._multiarray_umath": _UFUNCS,  # before numpy 2
    "sklearn.feature_selection._univariate_selection": "chi2 f_classif f_regression",
    "sklearn.metrics._classification": "accuracy_score balanced_accuracy_score brier_score_loss "
    "cohen_kappa_score f1_score jaccard_score log_loss matthews_corrcoef precision_score "
    "recall_score",
    "sklearn.metrics._ranking": "average_precision_score roc_auc_score",
}
_NUMBERS = {
    "numpy": "bool bool_ float16 float32 float64 int8 int16 int32 int64 str_ uint8 uint16 uint32 "
    "uint64",
}


def _named(names: dict[str, str]) -> frozenset[str]:
    return frozenset(
        f"{module}.{name}" for module, listed in names.items() for name in listed.split()
    )


CLASSES, FUNCTIONS, NUMBERS = _named(_CLASSES), _named(_FUNCTIONS), _named(_NUMBERS)

# What each kind of entry of a skops file may be of.
BY_LOADER: dict[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict", "sklearn.utils._bunch.Bunch"}),
    "FunctionNode": FUNCTIONS,
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "NdArrayNode": NUMBERS | {"numpy.ndarray"},
    "ObjectNode": CLASSES,
    "RandomStateNode": frozenset({"numpy.random.mtrand.RandomState"}),
    "SetNode": frozenset({"builtins.set"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": NUMBERS | _named({"builtins": "bool float int str tuple NoneType"}),
}
TRUSTED = sorted(frozenset().union(*BY_LOADER.values()))
