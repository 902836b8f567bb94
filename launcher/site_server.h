// SiteServer: the files of one folder for browsers on this computer.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace tadapt {

class SiteServer {
 public:
  /// Listens on 127.0.0.1 only; port 0 takes any that is free. ConfigError when the port cannot be had.
  SiteServer(const std::filesystem::path& directory, int port);
  ~SiteServer();

  /// "http://127.0.0.1:8000/".
  std::string address() const;
  /// Answers GET for files below the folder, whatever the path in it says, until `stop_requested`; a request that names
  /// another host (a page elsewhere whose name was made to lead here) is refused.
  void run(const std::function<bool()>& stop_requested);

 private:
  struct Server;
  std::unique_ptr<Server> server_;
};

}  // namespace tadapt
