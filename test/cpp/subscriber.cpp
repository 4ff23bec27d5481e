// Prints which objects are visible: ros2 topic's job, done in C++ to show that rclcpp takes the interfaces.
#include <iostream>
#include <memory>

#include "rclcpp/rclcpp.hpp"
#include "sam2_ros/msg/track_array.hpp"

using sam2_ros::msg::Track;
using sam2_ros::msg::TrackArray;

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  auto node = std::make_shared<rclcpp::Node>("sam2_subscriber");
  auto subscription = node->create_subscription<TrackArray>(
    "/sam2/tracks", 1, [](const TrackArray & message) {
      for (const auto & track : message.tracks) {
        std::cout << track.object_id << (track.state == Track::VISIBLE ? " visible" : " not visible") << std::endl;
      }
    });
  rclcpp::spin(node);
  rclcpp::shutdown();
}
