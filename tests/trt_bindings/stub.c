// In place of libnvinfer, libnvonnxparser and libnvinfer_plugin: every function that the bindings must find to be
// imported. None is ever called. Found with `nm -D --undefined-only tensorrt.so`.
#define EMPTY(NAME) \
    void* NAME(void) { return 0; }

EMPTY(createInferBuilder_INTERNAL)
EMPTY(createInferRefitter_INTERNAL)
EMPTY(createInferRuntime_INTERNAL)
EMPTY(createNvOnnxParserRefitter_INTERNAL)
EMPTY(createNvOnnxParser_INTERNAL)
EMPTY(getBuilderPluginRegistry)
EMPTY(getInferLibVersion)
EMPTY(getNvOnnxParserVersion)
EMPTY(getPluginRegistry)
EMPTY(initLibNvInferPlugins)
