#include "launcher/site_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

constexpr char kHost[] = "127.0.0.1";
constexpr std::chrono::milliseconds kBetweenLooks{100};

}  // namespace

struct SiteServer::Server {
  httplib::Server http;
  int port = 0;
};

SiteServer::SiteServer(const std::filesystem::path& directory, int port) : server_(std::make_unique<Server>()) {
  httplib::Server& http = server_->http;
  if (!http.set_mount_point("/", directory.string()))
    throw MissingInputError("{}: is no folder that could be served", directory.string());
  // The library would share a port with another server.
  http.set_socket_options([](int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  server_->port = port == 0 ? http.bind_to_any_port(kHost) : http.bind_to_port(kHost, port) ? port : -1;
  if (server_->port < 0) throw ConfigError("--port: {} is taken; choose another, or 0 for any that is free", port);
  http.set_pre_routing_handler([port = server_->port](const httplib::Request& request, httplib::Response& response) {
    const std::string host = request.get_header_value("Host");
    for (const char* name : {kHost, "localhost"})
      if (host == fmt::format("{}:{}", name, port)) return httplib::Server::HandlerResponse::Unhandled;
    response.status = 403;
    return httplib::Server::HandlerResponse::Handled;
  });
}

SiteServer::~SiteServer() = default;

std::string SiteServer::address() const { return fmt::format("http://{}:{}/", kHost, server_->port); }

void SiteServer::run(const std::function<bool()>& stop_requested) {
  const std::jthread watch([&](const std::stop_token& done) {
    while (!done.stop_requested()) {
      if (stop_requested()) server_->http.stop();
      std::this_thread::sleep_for(kBetweenLooks);
    }
  });
  server_->http.listen_after_bind();
}

}  // namespace tadapt
