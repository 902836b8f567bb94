"""tools/lint finds each thing it says it finds, and nothing in a clean tree. Run: python3 tests/tools/lint_test.py"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

LINT = Path(__file__).resolve().parents[2] / "tools" / "lint"
HEADER = "// What it is for.\n#pragma once\n"


def lint(files):
    """Output of tools/lint on a fresh tree of these {path: text}."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(root) / path).write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "-q", root], check=True)
        done = subprocess.run([sys.executable, LINT, root], capture_output=True, text=True, check=False)
        assert done.returncode == (1 if done.stdout else 0), done
        return done.stdout


class Lint(unittest.TestCase):
    def test_clean_tree(self):
        self.assertEqual(lint({
            "kernels/core/tensor.h": HEADER,
            "kernels/matmul.h": HEADER + '#include "kernels/core/tensor.h"\n',
            "runtime/comm/mpi_communicator.cc": "#include <mpi.h>\nint x = MPI_Init(nullptr, nullptr);\n",
            "data/hdf5.cc": "auto f = H5Fopen;\n",
            "launcher/main.cc": '#include "kernels/matmul.h"\n// MPI_Allreduce in a comment, and exit(1)\n',
            "tests/comm/x_test.cc": '#include <mpi.h>\n#include "launcher/main.cc"\n',
        }), "")

    def test_layers(self):
        header = {"data/file.h": HEADER, "runtime/train/trainer.h": HEADER, "kernels/matmul.h": HEADER}
        for path, included in [("kernels/x.cc", "data/file.h"), ("data/x.cc", "runtime/train/trainer.h"),
                               ("kernels/core/x.cc", "kernels/matmul.h"),
                               ("runtime/model/x.cc", "runtime/train/trainer.h")]:
            output = lint({**header, path: f'#include "{included}"\n'})
            self.assertIn(f"{path}:1: {Path(path).parent}/ may not use {included}", output)

    def test_includes_are_paths_from_the_root(self):
        self.assertIn("no path from the root", lint({"data/file.h": HEADER, "data/x.cc": '#include "file.h"\n'}))

    def test_own_header_comes_first(self):
        header = {"data/file.h": HEADER}
        rule = "data/file.h is included first"
        self.assertEqual(lint({**header, "data/file.cc": '// Why.\n#include "data/file.h"\n\n#include <string>\n'}), "")
        self.assertIn(f"data/file.cc:1: {rule}",
                      lint({**header, "data/file.cc": '#include <string>\n#include "data/file.h"\n'}))
        self.assertIn(f"data/file.cc:1: {rule}", lint({**header, "data/file.cc": "int x;\n"}))

    def test_confined_names(self):
        for text in ["MPI_Comm c;", "#include <mpi.h>", "H5Dread(d);", "#include <hdf5.h>", "YAML::Node n;",
                     "namespace po = boost::program_options;", "cudaMalloc(p);", "#ifdef TADAPT_CUDA",
                     "#pragma omp parallel", "curl_easy_init();", "#include <curl/curl.h>"]:
            self.assertIn("runtime/train/x.cc:2: ", lint({"runtime/train/x.cc": "\n" + text + "\n"}), text)

    def test_forbidden_everywhere(self):
        for text in ["#pragma omp parallel for reduction(+ : x)", "std::reduce(std::execution::par, a, b);",
                     "thread_local int x;", "std::exit(1);", "exit(1);", "int x;  /* TODO */", "// TODO: more", "int y;  /// FIXME", "auto* p = new int;"]:
            self.assertIn("kernels/x.cc:1: ", lint({"kernels/x.cc": text + "\n"}), text)
        self.assertIn("-ffast-math", lint({"CMakeLists.txt": "add_compile_options(-ffast-math)\n"}))

    def test_sizes_and_openings(self):
        self.assertEqual(lint({"kernels/x.cc": "\n" * 400}), "")
        self.assertIn("401 lines", lint({"kernels/x.cc": "\n" * 401}))
        self.assertIn("opens with a sentence", lint({"kernels/x.h": "#pragma once\n"}))
        self.assertIn("#pragma once is missing", lint({"kernels/x.h": "// What it is for.\n"}))


if __name__ == "__main__":
    unittest.main()
