# tadapt_embed(TARGET FUNCTION HEADER FILES <files>): adds a source to TARGET that defines FUNCTION(name) of HEADER with
# the text of these files, by their names without folders.
function(tadapt_embed target function header)
  cmake_parse_arguments(ARG "" "" "FILES" ${ARGN})
  set(texts "")
  set(choices "")
  set(number 0)
  foreach(path IN LISTS ARG_FILES)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${path})
    file(READ ${CMAKE_SOURCE_DIR}/${path} text)
    string(FIND "${text}" ")embedded\"" end)
    if(NOT end EQUAL -1)
      message(FATAL_ERROR "${path} cannot be a raw string: it holds its end")
    endif()
    get_filename_component(name ${path} NAME)
    string(APPEND texts "constexpr std::string_view kText${number} = R\"embedded(${text})embedded\";\n")
    string(APPEND choices "  if (name == \"${name}\") return kText${number};\n")
    math(EXPR number "${number} + 1")
  endforeach()
  string(CONCAT code
    "// Made by cmake/embed.cmake.\n#include \"${header}\"\n\n#include \"kernels/core/error.h\"\n\n"
    "#pragma GCC diagnostic ignored \"-Woverlength-strings\"\n\nnamespace tadapt {\nnamespace {\n\n${texts}\n}  // namespace\n\n"
    "std::string_view ${function}(std::string_view name) {\n${choices}"
    "  throw Error(ExitCode::kInternal, fmt::format(\"the page has no file {}\", name));\n}\n\n}  // namespace tadapt\n")
  set(source ${CMAKE_BINARY_DIR}/${function}.cc)
  set(before "")
  if(EXISTS ${source})
    file(READ ${source} before)
  endif()
  if(NOT before STREQUAL code)
    file(WRITE ${source} "${code}")
  endif()
  target_sources(${target} PRIVATE ${source})
endfunction()
