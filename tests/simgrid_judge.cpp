// SimGrid as a judge of fluid.completion_times_s: pure max-min fair sharing of links, no TCP effects.
// in:  devices links flows; per link capacity and latency; per flow source destination bytes hops link...
// out: the finish of every flow in seconds, in order; last the CPU seconds of the simulation alone.
#include <cstdio>
#include <ctime>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

namespace sg4 = simgrid::s4u;

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  for (const char* setting : {"network/model:CM02", "network/TCP-gamma:0", "network/crosstraffic:0",
                              "network/latency-factor:1", "network/bandwidth-factor:1", "network/weight-S:0",
                              "surf/precision:1e-12", "maxmin/precision:1e-12"})
    engine.set_config(std::string(setting));
  int devices, links, flows;
  if (std::scanf("%d %d %d", &devices, &links, &flows) != 3) return 1;
  auto* zone = sg4::create_full_zone("zone");
  std::vector<sg4::Host*> host;
  for (int i = 0; i < devices; i++) host.push_back(zone->create_host("h" + std::to_string(i), 1e9)->seal());
  std::vector<const sg4::Link*> link;
  for (int i = 0; i < links; i++) {
    double capacity, latency;
    if (std::scanf("%lf %lf", &capacity, &latency) != 2) return 1;
    auto* made = zone->create_link("l" + std::to_string(i), capacity);
    made->set_latency(latency);
    made->set_sharing_policy(sg4::Link::SharingPolicy::SHARED);
    link.push_back(made->seal());
  }
  std::vector<int> from(flows), to(flows);
  std::vector<double> bytes(flows), finish(flows);
  for (int f = 0; f < flows; f++) {
    int hops;
    if (std::scanf("%d %d %lf %d", &from[f], &to[f], &bytes[f], &hops) != 4) return 1;
    std::vector<sg4::LinkInRoute> route;
    for (int h = 0, l; h < hops; h++) {
      if (std::scanf("%d", &l) != 1) return 1;
      route.emplace_back(link[l]);
    }
    zone->add_route(host[from[f]]->get_netpoint(), host[to[f]]->get_netpoint(), nullptr, nullptr, route, false);
  }
  zone->seal();
  std::vector<sg4::CommPtr> sent;
  sg4::Activity::on_completion_cb([&](sg4::Activity const& comm) { finish[std::stoi(comm.get_name())] = comm.get_finish_time(); });
  std::clock_t begin = std::clock();
  for (int f = 0; f < flows; f++) {
    auto comm = sg4::Comm::sendto_init(host[from[f]], host[to[f]]);
    comm->set_name(std::to_string(f));
    comm->set_payload_size(static_cast<uint64_t>(bytes[f]));
    comm->start();
    sent.push_back(comm);
  }
  engine.run();
  double cpu = double(std::clock() - begin) / CLOCKS_PER_SEC;
  for (int f = 0; f < flows; f++) std::printf("%.17g\n", finish[f]);
  std::printf("%.17g\n", cpu);
  return 0;
}
